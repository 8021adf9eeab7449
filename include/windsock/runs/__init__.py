"""What one training leaves behind: its folder and the contract between Windsock and a trainer."""
