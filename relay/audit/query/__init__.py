"""Questions over an audit log: pure functions over its records, for `relay audit`."""
