"""From text to plan: load a definition, bind its variables, compile it, explain it, and say what is wrong
with it."""
