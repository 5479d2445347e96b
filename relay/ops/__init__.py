"""What operators ask the internal listener: is it alive, who is connected, cut this off; and who may call it at all."""
