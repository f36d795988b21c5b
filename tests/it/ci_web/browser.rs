//! The pages in a real browser: nothing that keeps people out (axe-core, WCAG
//! AA), narrow and wide, light and dark; the keyboard; a log that grows.

use std::sync::Arc;

use datakit::ci::{Pool, Status, Use, layout};
use datakit::model::Time;

use super::driver::Browser;
use super::site::*;

const AXE: &str = include_str!("../../data/axe/axe.min.js");

/// What axe finds wrong, a line each: everything, or with the colours only.
async fn faults(browser: &Browser, colours: bool) -> String {
    if browser.run("return Boolean(window.axe)").await != true {
        browser.run(AXE).await;
    }
    let only = match colours {
        true => "{ type: 'rule', values: ['color-contrast'] }",
        false => "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']",
    };
    // Of many lines that are alike some are enough.
    let script = format!(
        "const done = arguments[arguments.length - 1];
        const of = {{ include: document, exclude: ['.log .l:nth-of-type(n+9):not(:nth-last-of-type(-n+4))'] }};
        axe.run(of, {{ runOnly: {only}, resultTypes: ['violations'] }}).then(
            (found) => done(found.violations.flatMap((one) => one.nodes.map(
                (node) => one.id + ': ' + node.html.slice(0, 200) + ' ' + node.failureSummary))),
            (error) => done(['axe failed: ' + error]));"
    );
    let found = browser.wait_for(&script).await;
    let found = found.as_array().cloned().unwrap_or_default();
    let text = |line: &serde_json::Value| line.as_str().unwrap_or_default().to_owned();
    found.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// How much of the page moved while it was loaded.
async fn shifts(browser: &Browser) -> f64 {
    let script = "const done = arguments[arguments.length - 1];
        let sum = 0;
        new PerformanceObserver((list) => {
            for (const entry of list.getEntries()) sum += entry.value;
        }).observe({ type: 'layout-shift', buffered: true });
        requestAnimationFrame(() => requestAnimationFrame(() => done(sum)));";
    browser.wait_for(script).await.as_f64().unwrap_or(0.0)
}

fn busy() -> Arc<Status> {
    let status = Arc::new(Status::default());
    let used = |cell: &str| Use {
        target: target("me/app/pr/7"),
        cell: cell.into(),
        branch: branch(&growing()),
        since: Time::now(),
    };
    status.update(|report| {
        report.connected = true;
        report.pools = vec![Pool {
            name: "heavy".into(),
            capacity: 2,
            running: vec![used("build")],
            waiting: vec![used("test,os=linux")],
        }];
    });
    status
}

#[tokio::test]
async fn the_pages_keep_nobody_out() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let shop = stocked().await;
    let site = Site::with(&shop, |_| (), Some(busy())).await;
    site.log_in("admin").await;
    let failing = site.get("/me/app/ref/heads/feature/x").await.text;
    let at = failing.find("/log/saved/").unwrap();
    let log = failing[at..].split('"').next().unwrap().to_owned();
    let history = site.get("/history/me/app/ref/heads/master").await.text;
    let at = history.rfind("?history=").unwrap();
    let old = format!("/me/app/ref/heads/master{}", &history[at..at + 49]);
    let pages = [
        ("front", "/".to_owned()),
        ("branches", "/branch".into()),
        ("pulls", "/pr".into()),
        ("project", "/me/app".into()),
        ("target", "/me/app/ref/heads/master".into()),
        ("failed", "/me/app/ref/heads/feature/x?test=build".into()),
        ("fork", "/me/app/pr/7".into()),
        ("old", old),
        ("history", "/history/me/app/ref/heads/master".into()),
        ("commit", format!("/me/app/commit/{}", sha(1))),
        ("log", format!("{log}#L301")),
        ("found", format!("{log}?q=line+29")),
        ("live", format!("/log/live/{}", growing())),
        ("queue", "/queue".into()),
        ("login", "/auth/login".into()),
        ("profile", "/user/profile".into()),
        ("settings", "/settings".into()),
        ("github", "/settings/github-auth".into()),
        ("error", "/error/permission-denied".into()),
        ("missing", "/nothing".into()),
    ];
    browser.look(1920, false).await;
    browser.go(&format!("{}/healthz", site.url)).await;
    let jar = site.jar.lock().unwrap().clone();
    for (name, value) in jar {
        browser.cookie(&name, &value).await;
    }
    browser.complaints().await;
    let mut wrong = Vec::new();
    for (name, path) in &pages {
        for width in [1920, 360] {
            let of = format!("{name}-{width}");
            browser.look(width, false).await;
            // Another page between, or a fragment would only be gone to.
            browser.go("about:blank").await;
            browser.go(&format!("{}{path}", site.url)).await;
            if *name == "live" {
                browser.until("document.querySelector('#L1 > span')").await;
            }
            let moved = shifts(&browser).await;
            if moved > 0.01 {
                wrong.push(format!("{of}: it moves by {moved}"));
            }
            let room = browser.run("const page = document.documentElement; return page.scrollWidth - page.clientWidth").await;
            if room.as_i64().is_none_or(|room| room > 0) {
                wrong.push(format!("{of}: it is {room} px too wide"));
            }
            for dark in [false, true] {
                browser.look(width, dark).await;
                let mode = if dark { "dark" } else { "light" };
                browser.picture(&format!("{of}-{mode}")).await;
                let found = faults(&browser, dark).await;
                if !found.is_empty() {
                    wrong.push(format!("{of}, {mode}: {found}"));
                }
            }
            let complaints = browser.complaints().await;
            // The page that is missing is complained of, rightly.
            if *name != "missing" && !complaints.is_empty() {
                wrong.push(format!("{of}: {}", complaints.join("; ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_keyboard_is_enough_and_lists_are_filtered() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    browser.look(1280, false).await;
    browser.go(&format!("{}/branch", site.url)).await;
    browser.press("\u{e004}").await;
    browser
        .until("document.activeElement.className === 'skip'")
        .await;
    browser.press("\u{e007}").await;
    browser.until("location.hash === '#main'").await;
    browser.press("/").await;
    browser.until("document.activeElement.id === 'q'").await;
    let shown =
        "[...document.querySelectorAll('[data-item]')].filter((item) => !item.hidden).length";
    browser.until(&format!("{shown} === 2")).await;
    browser.press("feature").await;
    browser
        .until(&format!(
            "{shown} === 1 && document.querySelector('[data-shown]').textContent === '1'"
        ))
        .await;
    // Every link and button can be reached, and shows that it was.
    browser
        .go(&format!("{}/me/app/ref/heads/master", site.url))
        .await;
    let count = browser
        .run("return document.querySelectorAll('a[href], button, input, [tabindex=\"0\"]').length")
        .await;
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..count.as_u64().unwrap() {
        browser.press("\u{e004}").await;
        let focus = browser
            .run(
                "const all = [...document.querySelectorAll('*')];
            const now = document.activeElement;
            const seen = getComputedStyle(now).outlineStyle !== 'none' || now.closest('svg');
            return seen ? all.indexOf(now) : 'no outline on ' + now.outerHTML",
            )
            .await;
        assert!(focus.is_u64(), "{focus}");
        reached.insert(focus.as_u64());
    }
    assert_eq!(reached.len() as u64, count.as_u64().unwrap());
}

#[tokio::test]
async fn a_growing_log_is_followed() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let shop = stocked().await;
    let site = Site::open(&shop).await;
    let name = growing();
    browser.look(1280, true).await;
    browser.go(&format!("{}/log/live/{name}", site.url)).await;
    browser.until("document.querySelector('#L1 > span')").await;
    let mut log = "=== build\n".to_owned();
    let mut lines = String::new();
    for number in 2..=200 {
        lines += &format!("\x1b[3{}mline {number}\x1b[m\n", number % 7 + 1);
    }
    lines += "10%";
    log += &lines;
    shop.put(
        &name,
        "More",
        &[(&layout::log_part(1), Some(lines.as_bytes()))],
    )
    .await;
    browser.until("document.getElementById('L200')").await;
    browser
        .until("document.getElementById('L201')?.textContent.includes('10%')")
        .await;
    browser
        .until("window.scrollY + window.innerHeight > document.documentElement.scrollHeight - 100")
        .await;
    shop.put(
        &name,
        "More",
        &[(&layout::log_part(2), Some(b"\r100%\ndone\n"))],
    )
    .await;
    log += "\r100%\ndone\n";
    browser
        .until("document.getElementById('L202')?.textContent.includes('done')")
        .await;
    assert_eq!(
        browser
            .run("return document.getElementById('L201').textContent")
            .await,
        "201100%\n"
    );
    browser.picture("growing").await;
    let files: Files<'_> = &[
        ("log", Some(log.as_bytes())),
        ("log.d", None),
        ("failure", Some(b"exited with status 3")),
    ];
    let commit = shop.put(&name, "Cached failure", files).await;
    browser
        .until("document.getElementById('log').dataset.done === 'failure'")
        .await;
    let link = browser
        .run("return document.querySelector('#status a').getAttribute('href')")
        .await;
    assert_eq!(link, format!("/log/saved/{name}/{commit}"));
    assert!(
        browser
            .run("return document.getElementById('status').textContent")
            .await
            .as_str()
            .unwrap()
            .contains("exited with status 3")
    );
    // The page of its target hears of the end.
    browser.go(&format!("{}/me/app/pr/7", site.url)).await;
    browser
        .until("document.body.textContent.includes('Building')")
        .await;
    let done = output(
        layout::Outcome::failure("exited with status 3"),
        layout::Logs::None,
    );
    shop.record(
        "me/app/pr/7",
        &sha(3),
        "build -> exited with status 3",
        &[("build", done, &[])],
    )
    .await;
    browser
        .until("document.querySelector('main').textContent.includes('exited with status 3')")
        .await;
}
