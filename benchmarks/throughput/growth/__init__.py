"""Growth of cost with the size of the work: environments, steps, prompts, cases, image side."""
