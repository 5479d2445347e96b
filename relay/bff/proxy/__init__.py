"""The API proxy, `ANY /api/proxy/{path}`: a session's cookie comes in, and a Bearer token goes to the backend.

paths.py            which paths go on, and to which route of the settings they belong
headers.py          which headers and cookies go on, in both directions; where a redirect may lead
requests.py         all checks of a request's head, before anything is sent
upstream.py         connections to the backend: a bounded pool, and one exchange of HTTP/1.1 on each
answers.py          what an answer needs: searched, filtered, or passed on piece by piece
field_filter.py     removes fields from JSON and leaves every other character as it is
token_search.py     finds the session's own tokens in an answer
open_calls.py       the calls that run now: a log-out ends a session's, and a client that has gone ends its own
access.py           the port for the access token of a request, and the adapter that reads the session's cookie
call.py             one call: the request goes up, the answer comes down
endpoint.py         the ASGI application that ties these together, with limits, audit events and counts
"""
