"""What the aggregator knows and decides. Pure."""
