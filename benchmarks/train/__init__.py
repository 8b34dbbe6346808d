"""Training steps timed next to torch and PEFT."""
