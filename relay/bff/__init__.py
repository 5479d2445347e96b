"""The backend for the frontend: cookies for the browser, tokens for the backend.

Log-in, refresh and log-out, who is logged in, and the API proxy.
"""
