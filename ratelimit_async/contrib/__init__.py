"""Where the limiter meets other libraries: each module needs the extra of its own name."""
