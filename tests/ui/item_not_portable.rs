//! Items that cannot travel: the type has no serde.

use multiprocess::Pool;

struct Handle(std::rc::Rc<u32>);

fn main() {
    let pool = Pool::new().unwrap();
    let _ = pool.map([Handle(std::rc::Rc::new(1))], |handle| *handle.0);
}
