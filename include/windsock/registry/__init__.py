"""Model versions: MLflow keeps them for people, the store's index keeps them for the loop; ``step`` registers one."""
