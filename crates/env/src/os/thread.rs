//! Threads of the background.

/// Makes the calling thread give way to others that want to compute, where the system can do that for one thread.
pub fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        /// As `nice -n 10`: about a tenth of the share of a thread that competes with it.
        const NICE: libc::c_int = 10;
        // SAFETY: the call takes numbers only; on Linux process 0 is the calling thread. A refusal changes nothing.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    }
}
