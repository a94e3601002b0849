"""The demonstration: `python -m tradovate_auth.testing.demo`.

An emulated Tradovate server in a process of its own, whose tokens live six seconds and whose auth calls take half a second;
one `TokenProvider`; and six HTTP stacks that use it at once, from threads and from tasks. In the middle the session is
revoked, and every worker's next call is an order: it goes out with a dead token.
"""

__all__: list[str] = []
