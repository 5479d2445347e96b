"""What must outlive the process: used tokens and revocations."""
