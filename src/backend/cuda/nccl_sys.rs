//! Made by bindgen from nccl.h of the wheel nvidia-nccl-cu12; `BLESS=1 cargo test --test nccl` makes it again, `make ranks` compares.
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, dead_code, unsafe_op_in_unsafe_fn, clippy::all)]
#[repr(C)]
#[derive(Copy, Clone)]
pub struct CUstream_st {
    _unused: [u8; 0],
}
pub type cudaStream_t = *mut CUstream_st;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct ncclComm {
    _unused: [u8; 0],
}
pub type ncclComm_t = *mut ncclComm;
pub const ncclResult_t_ncclSuccess: ncclResult_t = 0;
pub const ncclResult_t_ncclUnhandledCudaError: ncclResult_t = 1;
pub const ncclResult_t_ncclSystemError: ncclResult_t = 2;
pub const ncclResult_t_ncclInternalError: ncclResult_t = 3;
pub const ncclResult_t_ncclInvalidArgument: ncclResult_t = 4;
pub const ncclResult_t_ncclInvalidUsage: ncclResult_t = 5;
pub const ncclResult_t_ncclRemoteError: ncclResult_t = 6;
pub const ncclResult_t_ncclInProgress: ncclResult_t = 7;
pub const ncclResult_t_ncclTimeout: ncclResult_t = 8;
pub const ncclResult_t_ncclNumResults: ncclResult_t = 9;
pub type ncclResult_t = ::std::os::raw::c_uint;
pub const ncclRedOp_t_ncclSum: ncclRedOp_t = 0;
pub const ncclRedOp_t_ncclProd: ncclRedOp_t = 1;
pub const ncclRedOp_t_ncclMax: ncclRedOp_t = 2;
pub const ncclRedOp_t_ncclMin: ncclRedOp_t = 3;
pub const ncclRedOp_t_ncclAvg: ncclRedOp_t = 4;
pub const ncclRedOp_t_ncclNumOps: ncclRedOp_t = 5;
pub const ncclRedOp_t_ncclMaxRedOp: ncclRedOp_t = 2147483647;
pub type ncclRedOp_t = ::std::os::raw::c_uint;
pub const ncclDataType_t_ncclInt8: ncclDataType_t = 0;
pub const ncclDataType_t_ncclChar: ncclDataType_t = 0;
pub const ncclDataType_t_ncclUint8: ncclDataType_t = 1;
pub const ncclDataType_t_ncclInt32: ncclDataType_t = 2;
pub const ncclDataType_t_ncclInt: ncclDataType_t = 2;
pub const ncclDataType_t_ncclUint32: ncclDataType_t = 3;
pub const ncclDataType_t_ncclInt64: ncclDataType_t = 4;
pub const ncclDataType_t_ncclUint64: ncclDataType_t = 5;
pub const ncclDataType_t_ncclFloat16: ncclDataType_t = 6;
pub const ncclDataType_t_ncclHalf: ncclDataType_t = 6;
pub const ncclDataType_t_ncclFloat32: ncclDataType_t = 7;
pub const ncclDataType_t_ncclFloat: ncclDataType_t = 7;
pub const ncclDataType_t_ncclFloat64: ncclDataType_t = 8;
pub const ncclDataType_t_ncclDouble: ncclDataType_t = 8;
pub const ncclDataType_t_ncclBfloat16: ncclDataType_t = 9;
pub const ncclDataType_t_ncclFloat8e4m3: ncclDataType_t = 10;
pub const ncclDataType_t_ncclFloat8e5m2: ncclDataType_t = 11;
pub const ncclDataType_t_ncclNumTypes: ncclDataType_t = 12;
pub type ncclDataType_t = ::std::os::raw::c_uint;
pub struct Nccl {
    __library: ::libloading::Library,
    pub ncclGetVersion: unsafe extern "C" fn(
        version: *mut ::std::os::raw::c_int,
    ) -> ncclResult_t,
    pub ncclGetErrorString: unsafe extern "C" fn(
        result: ncclResult_t,
    ) -> *const ::std::os::raw::c_char,
    pub ncclCommCount: unsafe extern "C" fn(
        comm: ncclComm_t,
        count: *mut ::std::os::raw::c_int,
    ) -> ncclResult_t,
    pub ncclCommUserRank: unsafe extern "C" fn(
        comm: ncclComm_t,
        rank: *mut ::std::os::raw::c_int,
    ) -> ncclResult_t,
    pub ncclAllReduce: unsafe extern "C" fn(
        sendbuff: *const ::std::os::raw::c_void,
        recvbuff: *mut ::std::os::raw::c_void,
        count: usize,
        datatype: ncclDataType_t,
        op: ncclRedOp_t,
        comm: ncclComm_t,
        stream: cudaStream_t,
    ) -> ncclResult_t,
}
impl Nccl {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: ::libloading::AsFilename,
    {
        let library = ::libloading::Library::new(path)?;
        Self::from_library(library)
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let ncclGetVersion = __library.get(b"ncclGetVersion\0").map(|sym| *sym)?;
        let ncclGetErrorString = __library.get(b"ncclGetErrorString\0").map(|sym| *sym)?;
        let ncclCommCount = __library.get(b"ncclCommCount\0").map(|sym| *sym)?;
        let ncclCommUserRank = __library.get(b"ncclCommUserRank\0").map(|sym| *sym)?;
        let ncclAllReduce = __library.get(b"ncclAllReduce\0").map(|sym| *sym)?;
        Ok(Nccl {
            __library,
            ncclGetVersion,
            ncclGetErrorString,
            ncclCommCount,
            ncclCommUserRank,
            ncclAllReduce,
        })
    }
    pub unsafe fn ncclGetVersion(
        &self,
        version: *mut ::std::os::raw::c_int,
    ) -> ncclResult_t {
        (self.ncclGetVersion)(version)
    }
    pub unsafe fn ncclGetErrorString(
        &self,
        result: ncclResult_t,
    ) -> *const ::std::os::raw::c_char {
        (self.ncclGetErrorString)(result)
    }
    pub unsafe fn ncclCommCount(
        &self,
        comm: ncclComm_t,
        count: *mut ::std::os::raw::c_int,
    ) -> ncclResult_t {
        (self.ncclCommCount)(comm, count)
    }
    pub unsafe fn ncclCommUserRank(
        &self,
        comm: ncclComm_t,
        rank: *mut ::std::os::raw::c_int,
    ) -> ncclResult_t {
        (self.ncclCommUserRank)(comm, rank)
    }
    pub unsafe fn ncclAllReduce(
        &self,
        sendbuff: *const ::std::os::raw::c_void,
        recvbuff: *mut ::std::os::raw::c_void,
        count: usize,
        datatype: ncclDataType_t,
        op: ncclRedOp_t,
        comm: ncclComm_t,
        stream: cudaStream_t,
    ) -> ncclResult_t {
        (self.ncclAllReduce)(sendbuff, recvbuff, count, datatype, op, comm, stream)
    }
}
