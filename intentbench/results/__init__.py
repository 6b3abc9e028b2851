"""The record of a trial and its store; read by all who judge, loads no torch."""
