"""A simulated payment provider in Stripe's form, honest or hostile: for tests, and to try the Stripe adapter."""
