use leasehold_law::secret::Secret;

fn cloned(secret: &Secret) -> Secret {
    secret.clone()
}

fn printed(secret: &Secret) -> String {
    format!("{secret}")
}

fn serialised(secret: &Secret) -> String {
    serde_json::to_string(secret).unwrap_or_default()
}

fn main() {}
