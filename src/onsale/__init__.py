"""Sells tickets at the moment everybody wants them."""
