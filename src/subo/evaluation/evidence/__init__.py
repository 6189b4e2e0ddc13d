"""How likely the data are: log p(x) by importance sampling and by annealing, with errors and brackets."""
