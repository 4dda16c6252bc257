"""What is searched: written offline by a build, read online by the searcher. Knows nothing of requests."""
