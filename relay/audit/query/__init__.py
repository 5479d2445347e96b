"""Stories of an audit log: pure functions over its records, in plain words for `relay audit` and the ops page."""
