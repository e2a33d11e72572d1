"""The gossip transport over ZeroMQ; `transport.Transport` is its face. Only here is zmq imported
for the network (the control socket has its own pair of modules)."""
