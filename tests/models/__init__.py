"""Small pure models, and the state machines that hold the product against them."""
