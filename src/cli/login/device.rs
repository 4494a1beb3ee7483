//! Signing in on another device (RFC 8628): this program shows a code, and asks until it was entered there.

use std::time::Duration;

use oauth2::StandardDeviceAuthorizationResponse;

use super::issuer::{Granted, Issuer, printable, unusable};
use crate::cli::console::Console;
use crate::cli::problem::Problem;

/// Nobody is waited for longer, whatever the issuer allows.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

pub(super) async fn sign_in(issuer: &Issuer, console: &mut Console) -> Result<Granted, Problem> {
    let ask = issuer.protocol.exchange_device_code().map_err(|_| {
        unusable(&issuer.provider.issuer, "it has no sign-in by code on another device (RFC 8628)")
            .next("leasehold login --browser")
    })?;
    let ask = issuer.scopes().into_iter().fold(ask, oauth2::DeviceAuthorizationRequest::add_scope);
    let told: StandardDeviceAuthorizationResponse =
        ask.request_async(&issuer.http).await.map_err(|error| issuer.refused(&error))?;
    show(&told, console);
    let tokens = issuer.protocol.exchange_device_access_token(&told);
    let tokens = tokens.request_async(&issuer.http, tokio::time::sleep, Some(PATIENCE)).await;
    issuer.granted(tokens.map_err(|error| issuer.refused(&error))?, None).await
}

fn show(told: &StandardDeviceAuthorizationResponse, console: &mut Console) {
    let code = printable(told.user_code().secret());
    console.note(&format!("open {} and enter {code}", printable(told.verification_uri().as_str())));
    if let Some(whole) = told.verification_uri_complete() {
        console.note(&format!("or open {}", printable(whole.secret())));
    }
    console.note("only enter a code that you asked for yourself, just now; this waits until you did");
}
