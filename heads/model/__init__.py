"""What a head is, the Keras model of it, and its training by Keras ``fit``: the reference for the bank."""
