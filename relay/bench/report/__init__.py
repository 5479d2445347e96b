"""What a benchmark found: tables, one JSON object, a Markdown document and a chart."""
