"""From the settings to what each part takes: its options, the session verifier, the keys.

What has to be closed again, a verifier or fetched keys, `relay.parts` closes.
"""
