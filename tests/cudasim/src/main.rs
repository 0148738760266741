//! Prints the folder of the simulated driver, for programs that are not run by Cargo:
//! `LD_LIBRARY_PATH=$(cargo run -qp cudasim) python …`.
fn main() {
    match cudasim::folder() {
        Ok(folder) => println!("{}", folder.display()),
        Err(why) => {
            eprintln!("no simulated CUDA driver: {why}");
            std::process::exit(1);
        }
    }
}
