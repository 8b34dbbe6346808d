"""Speed of LoRA training compared with torch + PEFT."""
