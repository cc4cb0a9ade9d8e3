"""What a worker shows of itself: events, a live view, plain lines, logs."""
