"""A person against a trained model: ``python -m ragen.play --model_path DIR --env tictactoe``."""
