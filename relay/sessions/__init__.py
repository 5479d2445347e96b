"""Who is behind a credential: the ways to tell, behind one port."""
