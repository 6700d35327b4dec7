"""Images that stand in for the lock's where no image registry is reached, made from Debian and registry packages."""
