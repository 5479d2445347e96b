"""What a `Publisher` consists of: messages encoded (`drafts`), kept in order until they are settled (`outbox`), and two
ways to the relay that empty it, requests (`posting`) or a socket (`streaming`, with one `link` a connection).
"""
