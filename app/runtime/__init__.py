"""What keeps the service fast and alive: ONNX sessions, the queue, its workers, deadlines. No word of search here."""
