"""What keeps the service fast and alive: ONNX sessions, the queue and its workers, deadlines. Knows nothing of search."""
