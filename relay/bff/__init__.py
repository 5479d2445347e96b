"""The backend for the frontend: the routes that stand between the browser's cookies and the backend's tokens."""
