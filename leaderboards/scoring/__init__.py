"""From judged rows to scores, headlines and ranks; and the hash of the code that decides them."""
