"""What there is, for people and programs: names by pattern, and a card of every task, agent, defense and victim."""
