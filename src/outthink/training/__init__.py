"""Small trainers for the embedded models: tokenizer, supervised fine-tuning, process rewards, evaluation."""
