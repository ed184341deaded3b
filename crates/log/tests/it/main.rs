//! The log from outside: campaigns over a simulated machine, and hostile bytes.

mod campaign;

#[test]
fn two_hundred_lives_lose_nothing() {
    for seed in 1..=200 {
        if let Err(why) = campaign::live(seed) {
            panic!("{why}\nagain: cargo xtask sim --seeds 1 --from {seed}");
        }
    }
}
