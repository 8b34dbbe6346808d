"""An environment, an expert's file and a method outside the package; docs/tutorial.md explains."""
