"""From the digest that was tested to the digest that serves: plan, copy, deploy, gate, shift, verify, or roll back."""
