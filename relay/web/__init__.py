"""What the HTTP shells share: where a request came from, its cookies and body, and how answers look."""
