"""What an image is labelled with: the class manifest and the one sparse target form."""
