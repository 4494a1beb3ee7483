//! A browser, as far as the provider's pages need one: cookies, forms, redirects.

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, RequestBuilder, Response};
use url::Url;

use super::issuer::Provider;

/// Pages that one sign-in has at most.
const MOST: usize = 20;

pub(crate) struct Browser {
    client: Client,
    /// By name and path.
    cookies: BTreeMap<(String, String), String>,
}

/// A page after all its redirects.
struct Page {
    url: Url,
    text: String,
}

impl Browser {
    pub(crate) fn new(provider: &Provider) -> Self {
        Self { client: provider.http.clone(), cookies: BTreeMap::new() }
    }

    /// Goes through every form, as this person.
    pub(crate) async fn signs_in(mut self, url: &str, person: &str) {
        let mut page = self.open(url).await;
        for _ in 0..MOST {
            let Some(form) = Form::of(&page) else {
                assert!(!page.text.contains("oops"), "the provider refuses: {}", page.text);
                return;
            };
            page = self.send(form, person).await;
        }
        panic!("the forms do not end: {}", page.text);
    }

    /// Says no to the first form.
    pub(crate) async fn refuses(mut self, url: &str) {
        let page = self.open(url).await;
        let abort = page.text.split("href=\"").find(|part| part.contains("/abort")).unwrap();
        let abort = page.url.join(abort.split('"').next().unwrap()).unwrap();
        self.open(abort.as_str()).await;
    }

    async fn open(&mut self, url: &str) -> Page {
        let request = self.client.get(url);
        self.follow(url.parse().unwrap(), request).await
    }

    async fn send(&mut self, form: Form, person: &str) -> Page {
        let mut fields = form.fields;
        fields.entry("login".to_owned()).or_insert_with(|| person.to_owned());
        fields.entry("password".to_owned()).or_insert_with(|| "any".to_owned());
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
        let request = self.client.post(form.action.clone()).body(body);
        self.follow(form.action, request.header("content-type", "application/x-www-form-urlencoded")).await
    }

    async fn follow(&mut self, mut url: Url, mut request: RequestBuilder) -> Page {
        for _ in 0..MOST {
            let fits = |((_, path), _): &(&(String, String), &String)| url.path().starts_with(path.as_str());
            let cookies = self.cookies.iter().filter(fits);
            let cookies: Vec<_> = cookies.map(|((name, _), value)| format!("{name}={value}")).collect();
            let answer = request.header(COOKIE, cookies.join("; ")).send().await.unwrap();
            self.remember(&answer);
            let Some(next) = answer.headers().get(LOCATION) else {
                return Page { url, text: answer.text().await.unwrap() };
            };
            url = url.join(next.to_str().unwrap()).unwrap();
            request = self.client.get(url.clone());
        }
        panic!("the redirects do not end: {url}");
    }

    fn remember(&mut self, answer: &Response) {
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            let path = cookie.split("path=").nth(1).map_or("/", |path| path.split(';').next().unwrap());
            let place = (name.to_owned(), path.to_owned());
            match value {
                "" => drop(self.cookies.remove(&place)),
                value => drop(self.cookies.insert(place, value.to_owned())),
            }
        }
    }
}

/// The first form of a page, with what it sends by itself.
struct Form {
    action: Url,
    fields: BTreeMap<String, String>,
}

impl Form {
    fn of(page: &Page) -> Option<Self> {
        let form = page.text.split("<form").nth(1)?.split("</form>").next().unwrap();
        let action = page.url.join(&attribute(form.split('>').next().unwrap(), "action")?).unwrap();
        let hidden = page.text.split("<input").skip(1).map(|input| input.split('>').next().unwrap());
        let hidden = hidden.filter(|input| attribute(input, "type").as_deref() == Some("hidden"));
        let fields = hidden.filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?)));
        Some(Self { action, fields: fields.collect() })
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!("{name}=\"")).nth(1)?.split('"').next().unwrap();
    Some(value.replace("&amp;", "&"))
}
