"""The backend for the frontend: log-in and log-out, with cookies for the browser and tokens for the backend."""
