"""How robust is a model, and can the figure be trusted: audits of one model, studies of many."""
