"""What would the model be, had it been trained on other data?"""
